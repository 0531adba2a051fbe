"""The HTTP contract as data, and the OpenAPI document that is made of it; it serves nothing itself.

``operations`` is the table of all routes: what each takes, answers and refuses; ``operation`` says what a row is, and
``catalogue`` has the rows of what is no run. ``bodies`` and ``replies`` are the forms of JSON that go in and out,
``parts`` the parameters and headers. ``document`` joins the table to the routes that the application really has, so
that nothing can be told which is not there.
"""
