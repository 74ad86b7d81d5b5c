# SPDX-License-Identifier: Apache-2.0
"""Test files of one name are told apart by their package."""
