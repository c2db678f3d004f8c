"""A nemo-evaluator harness for the test cluster: see framework.yml."""
