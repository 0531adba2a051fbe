"""``bucketd routes``: prints what each route needs, and which roles have it."""

from __future__ import annotations

import click
import orjson

from api.auth.route_permissions import ROUTE_PERMISSIONS
from compose.cli import console
from shared.domain.access.caller import ROLE_PERMISSIONS, Permission

_WITHOUT_KEY = {
    Permission.PUBLIC: "everyone",
    Permission.OPTIONAL: "everyone; more with a key",
    Permission.SESSION: "a page of the dashboard; what it shows and does needs the rights of the routes that it calls",
    Permission.METRICS: "any key, or BUCKET_METRICS_NETWORKS",
}


@click.command()
@console.json_option
def routes(*, as_json: bool) -> None:
    """Print each route with the permission that it needs and the roles that have it."""
    rows = [(operation, permission, roles_of(permission)) for operation, permission in ROUTE_PERMISSIONS.items()]
    if as_json:
        views = [{"route": row[0], "permission": row[1], "roles": row[2]} for row in rows]
        click.echo(orjson.dumps({"routes": views}, option=orjson.OPT_INDENT_2))
        return
    width = max(map(len, ROUTE_PERMISSIONS))
    for operation, permission, roles in rows:
        who = _WITHOUT_KEY.get(permission) or ", ".join(roles)
        click.echo(f"{operation:<{width}}  {permission:<14} {who}")


def roles_of(permission: Permission) -> list[str]:
    """Return the roles that have a permission; those of everyone for a public route."""
    return [str(role) for role, permissions in ROLE_PERMISSIONS.items() if permission in permissions]
