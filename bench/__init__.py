"""Benchmarks: the real publisher and the real runtime, beside bare aio-pika."""
