"""What all benchmarks share: processes and their CPU time, nginx, wrk, rounds, and the table."""
