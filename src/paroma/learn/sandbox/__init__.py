"""The worker process: started, walled in, limited, watched.

Read in this order: `task` (what is asked of a worker, and how it can end), `host` (starts the zygote and talks to it),
`mounts` (what the zygote can see), `zygote` (the program inside), `landlock` and `seccomp` (its walls), `walls` (what
stands on this machine).
"""
