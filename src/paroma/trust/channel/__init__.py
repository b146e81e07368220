"""Between hub and site:

durable messages over parked requests. Start at `messages`; `line` is the site's end, `exchange` the hub's.
"""
