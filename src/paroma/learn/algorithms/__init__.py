"""What is asked and answered: `query` names it, `plan` walks it step by step, `worker.compute` reads the rows at a
site.
"""
