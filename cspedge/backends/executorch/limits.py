def check_limits(g): pass
