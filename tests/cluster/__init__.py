"""The test cluster: a package, since several folders of tests have a conftest.py."""
