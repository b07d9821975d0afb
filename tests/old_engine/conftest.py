"""The small bundle of the runtime's tests."""

from tests.runtime.conftest import bundle, whole_bundle

__all__ = ["bundle", "whole_bundle"]
