"""Networks: actor, behavior policy, critic."""

from fbrc_agent.utils import compat

compat.check_keras()
compat.mend_sampling_of_uint8()
