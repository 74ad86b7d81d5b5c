# SPDX-License-Identifier: Apache-2.0
"""The chaos suite: Ray channels while processes are killed and stopped, with an account at the end."""
