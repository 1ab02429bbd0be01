"""The commands of `digits` that query a model server: one module each, with a `run(args, config)`.

In: parsed arguments and a `ClientConfig` from serving/cli.py. Out: a table or JSON on stdout, and an exit status.
Next: serving/client/, which sends the requests.
"""
