"""Quiet logs: pytest would keep every line of dynamo's trace."""

from __future__ import annotations

import logging

logging.getLogger("torch.__trace").propagate = False
