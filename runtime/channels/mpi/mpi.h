// Ranks that are processes, started by mpirun or srun: rank r of the plan is rank r of MPI_COMM_WORLD.
#pragma once

#include <memory>
#include <string>

#include "hal/channel.h"

namespace aegis {

// Initialises MPI, once per process. All calls must come from the thread that made the transport.
// R406: this build or machine has no MPI, it does not start, or there are not as many processes as ranks.
std::shared_ptr<Transport> makeMpiTransport(const TransportJob& job);

// Name and version of the MPI library that makeMpiTransport would take; "" if there is none, `why` says why.
std::string mpiLibrary(std::string* why = nullptr);

// Ends all processes of the job if this one runs in an MPI job that has not come to its end, after a moment
// for their messages; else does nothing.
void abortMpiJob(int status);

// Async-signal-safe: if this process runs in an MPI job, writes to `file` in which collective it is, or after
// which one, or that it is before its first. Rank, collective, kind and node are in one line, made ready
// beforehand. False outside of MPI jobs.
bool writePendingCollective(int file);

}  // namespace aegis
