"""Benchmarks of packing: how full rows are, how fast packers are, how near to the bound they come, how evenly ranks share the
work.
"""
