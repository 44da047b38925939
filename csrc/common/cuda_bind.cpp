#include <cuda_runtime_api.h>

#include "bind.h"

using namespace fastprompt;

FASTPROMPT_BIND(cuda) { m.attr("cuda_runtime") = CUDART_VERSION; }
