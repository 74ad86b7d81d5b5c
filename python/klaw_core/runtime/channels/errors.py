# SPDX-License-Identifier: Apache-2.0
"""The errors of channels, from :mod:`klaw_core.runtime.errors`."""

from __future__ import annotations

from klaw_core.runtime.errors import (
    ChannelBackendError,
    ChannelBackendErrorException,
    ChannelClosed,
    ChannelClosedError,
    ChannelEmpty,
    ChannelEmptyError,
    ChannelFull,
    ChannelFullError,
    ChannelLagged,
    ChannelLaggedError,
    ChannelTypeError,
    ChannelTypeErrorException,
)

__all__ = [
    "ChannelBackendError",
    "ChannelBackendErrorException",
    "ChannelClosed",
    "ChannelClosedError",
    "ChannelEmpty",
    "ChannelEmptyError",
    "ChannelFull",
    "ChannelFullError",
    "ChannelLagged",
    "ChannelLaggedError",
    "ChannelTypeError",
    "ChannelTypeErrorException",
]
