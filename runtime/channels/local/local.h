// Ranks that are threads of one process: they copy from each other's blocks.
#pragma once

#include <memory>

#include "hal/channel.h"

namespace aegis {

// All ranks. R406: AEGIS_CHANNEL_TIMEOUT is no number.
std::shared_ptr<Transport> makeLocalTransport(const TransportJob& job);

}  // namespace aegis
