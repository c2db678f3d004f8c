"""The test cluster: a package, so that its conftest does not stand in for the one above."""
