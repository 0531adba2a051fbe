"""The HTTP contract as data, the OpenAPI document that is built from it, and the routes that serve the document.

``operation_table`` is the table of all routes: the parameters, responses and errors of each. ``request_schemas``,
``response_schemas`` and ``collection_schemas`` are the JSON schemas of bodies, made with the builders in
``json_schema``; ``components`` are the parameters and headers. ``document`` joins the table to the routes that the
application really has, so that the document cannot describe a route that does not exist.
"""
