"""Secure sums: the hub learns what the sites' vectors add up to and nothing else. Pure functions over bytes and arrays.

Start at `layout` (what a vector is), then the order of a round: `agreement`, `seeds`, `masks`, `shamir`, `sealing`,
`unmask`. When a share or a seed may be given is not decided here but by the vote of `learn/runs`.
"""
