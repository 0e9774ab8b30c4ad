"""Membership: whether a student tells which records its teacher was trained on."""

from dpsd.attacks.membership.attacking import Membership as Membership
from dpsd.attacks.membership.attacking import attack as attack
