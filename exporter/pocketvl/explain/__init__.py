"""Why a variant takes as long as it does: operators beside the machine's peaks, rules that name faults."""
