"""The command line: parse, call, print. Everything it does is in `cspedge.pipeline` and `cspedge.api`."""
