// Processes that meet in a folder that all of them can write, where there is no MPI: signs of life, the end
// of a job and short messages are files in it. Rows go another way (channels/nccl): its channels have no
// collectives.
#pragma once

#include <memory>
#include <string>

#include "hal/channel.h"

namespace aegis {

// What AEGIS_RENDEZVOUS names, and the rank that the launcher gave this process: AEGIS_RANK, or what Slurm,
// Open MPI, MPICH or torchrun say. folder "": there is none. R406: no rank, or not one of the plan's.
struct Rendezvous {
  std::string folder;
  uint32_t rank = 0;
};
Rendezvous rendezvousOfProcess(uint32_t rankCount);

// R406: rank 0 finds the folder in use, or it cannot be made. Rank 0 makes the folder if need be, and empties
// it at the end.
std::shared_ptr<Transport> makeFolderTransport(const TransportJob& job, const Rendezvous& rendezvous);

}  // namespace aegis
