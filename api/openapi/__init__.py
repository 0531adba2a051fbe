"""The HTTP contract as data, and the OpenAPI document that is made of it; it serves nothing itself.

``operations`` is the table of all routes: what each takes, answers and refuses; ``operation`` says what a row is.
Beside the rows of single runs, which it has itself, it joins those of ``lists`` (many runs at once), ``feed`` (what
changed) and ``catalogue`` (what is no run). ``bodies`` and ``replies`` are the forms of JSON that go in and out, made
of the small words in ``forms``; ``parts`` are the parameters and headers. ``document`` joins the table to the routes
that the application really has, so that nothing can be told which is not there.
"""
