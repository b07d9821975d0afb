"""The stages that recipes are made of: each wraps plain functions of the packages below."""
