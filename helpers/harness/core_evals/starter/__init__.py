"""The starter benchmarks: four short tasks over the chat endpoint, with their data, as a nemo-evaluator harness."""
