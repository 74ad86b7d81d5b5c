# SPDX-License-Identifier: Apache-2.0
"""Channels, whatever carries them."""
