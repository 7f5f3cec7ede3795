"""How the tests inside TF-Agents' wheel are run on our agents: imported, never copied."""

import importlib
import sys
import unittest.mock


def load(module):
    """Imports a test module of tf_agents; it may want `mock`, which became unittest.mock."""
    sys.modules.setdefault("mock", unittest.mock)
    return importlib.import_module(f"tf_agents.{module}")


def methods(test_case):
    """Returns the names of a class's test methods."""
    names = {name for name in dir(test_case) if name.startswith("test")}
    # test_session is a deprecated helper of tf.test.TestCase, not a test.
    return {name for name in names if callable(getattr(test_case, name))} - {"test_session"}


def leaving_out(reasons):
    """Takes methods out of a class that inherits them; `reasons` maps each one to its why."""

    def decorate(test_case):
        test_case.test_session = None
        for name in reasons:
            assert name in methods(test_case), f"{test_case.__name__} has no {name}"
            setattr(test_case, name, None)
        return test_case

    return decorate
