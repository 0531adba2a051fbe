"""``python -m bucket_client.cli`` is the command ``bucket``."""

from __future__ import annotations

from bucket_client.cli import main

if __name__ == "__main__":
    main()
