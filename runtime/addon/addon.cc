// The N-API door to the runtime. Every function takes one options object and starts a task (task.h);
// src/executor has the types. Nothing here but `encrypt` and `decrypt` opens a secret key.
#include <napi.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "addon/task.h"
#include "client/cipher.h"
#include "client/keygen.h"
#include "client/machine.h"
#include "exec/run_job.h"
#include "plan/plan_file.h"
#include "support/error.h"

namespace aegis::addon {
namespace {

PlanFile openPlan(const std::string& path) { return PlanFile::open(path, {kNoMemoryLimit}); }

Napi::Array stringArray(Napi::Env env, const std::vector<std::string>& values) {
  const Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); i++) array.Set(i, values[i]);
  return array;
}

Napi::Object optionsOf(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsObject())
    throw Napi::TypeError::New(info.Env(), "options must be an object");
  return info[0].As<Napi::Object>();
}

Napi::Value doctor(const Napi::CallbackInfo& info) {
  return startTask(info.Env(), info.Env().Undefined(), [](const Progress&) -> Convert {
    return [machine = describeMachine()](Napi::Env env) -> Napi::Value {
      const Napi::Object result = Napi::Object::New(env);
      result.Set("cpu", machine.cpu);
      result.Set("cores", machine.cores);
      result.Set("memoryBytes", double(machine.memoryBytes));
      result.Set("availableBytes", double(machine.availableBytes));
      result.Set("features", stringArray(env, machine.features));
      result.Set("kernels", stringArray(env, machine.kernels));
      result.Set("chosenKernels", machine.chosenKernels);
      result.Set("sodium", machine.sodium);
      result.Set("mpi", machine.mpi);
      result.Set("mpiProblem", machine.mpiProblem);
      result.Set("nccl", machine.nccl);
      result.Set("ncclProblem", machine.ncclProblem);
      result.Set("cuda", stringArray(env, machine.cuda));
      result.Set("cudaProblem", machine.cudaProblem);
      return result;
    };
  });
}

// plan: a path, or the bytes.
Napi::Value validatePlan(const Napi::CallbackInfo& info) {
  const Napi::Value source = optionsOf(info).Get("plan");
  std::string path;
  std::vector<uint8_t> bytes;
  if (source.IsTypedArray() && source.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array) {
    const auto array = source.As<Napi::Uint8Array>();
    bytes.assign(array.Data(), array.Data() + array.ElementLength());  // the caller's may change meanwhile
  } else {
    path = stringField(optionsOf(info), "plan");
  }
  const bool fromPath = source.IsString();
  return startTask(info.Env(), info.Env().Undefined(),
                   [path, fromPath, bytes = std::move(bytes)](const Progress&) mutable -> Convert {
    const PlanFile plan = fromPath ? openPlan(path) : PlanFile::fromBytes(std::move(bytes), {kNoMemoryLimit});
    const PlanMemory memory = plan.memory();
    const bool insecure = plan.insecure();
    const std::string model = plan.plan().model_name()->str();
    return [=](Napi::Env env) -> Napi::Value {
      const Napi::Object result = Napi::Object::New(env);
      result.Set("modelName", model);
      result.Set("insecure", insecure);
      result.Set("plaintextBytes", double(memory.plaintextBytes));
      result.Set("keyBytes", double(memory.keyBytes));
      result.Set("arenaBytes", double(memory.arenaBytes));
      return result;
    };
  });
}

Napi::Value keygen(const Napi::CallbackInfo& info) {
  const Napi::Object options = optionsOf(info);
  const std::string plan = stringField(options, "plan");
  const uint32_t threads = countField(options, "threads", 0);
  KeygenOptions keygen;
  keygen.directory = stringField(options, "directory");
  const Napi::Value seed = options.Get("seed");
  if (seed.IsNumber()) keygen.seed = uint64_t(seed.As<Napi::Number>().Int64Value());
  return startTask(info.Env(), options.Get("onProgress"), [=](const Progress& progress) -> Convert {
    const PlanFile file = openPlan(plan);
    CryptoContext context(file.plan(), threads);
    KeygenOptions own = keygen;
    own.progress = progress;
    return [result = generateKeys(context, own), insecure = file.insecure()](Napi::Env env) -> Napi::Value {
      const Napi::Object object = Napi::Object::New(env);
      object.Set("secretKey", result.secretKey);
      object.Set("publicKey", result.publicKey);
      object.Set("evalKeys", result.evalKeys);
      object.Set("evalKeysBytes", double(result.evalKeysBytes));
      object.Set("keyCount", result.keyCount);
      object.Set("insecure", insecure);
      return object;
    };
  });
}

Napi::Array warningArray(Napi::Env env, const std::vector<Warning>& warnings) {
  const Napi::Array array = Napi::Array::New(env, warnings.size());
  for (uint32_t i = 0; i < warnings.size(); i++) {
    const Napi::Object warning = Napi::Object::New(env);
    warning.Set("code", warnings[i].code);
    warning.Set("message", warnings[i].message);
    array.Set(i, warning);
  }
  return array;
}

ClearTensors clearTensors(const Napi::Value& value) {
  if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), "inputs must be an object");
  const auto object = value.As<Napi::Object>();
  const Napi::Array names = object.GetPropertyNames();
  ClearTensors tensors;
  for (uint32_t i = 0; i < names.Length(); i++) {
    const std::string name = names.Get(i).ToString();
    const Napi::Value tensor = object.Get(names.Get(i));
    if (!tensor.IsTypedArray() || tensor.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array)
      throw Napi::TypeError::New(value.Env(), "input " + name + " must be a Float64Array");
    const auto array = tensor.As<Napi::Float64Array>();
    tensors[name].assign(array.Data(), array.Data() + array.ElementLength());
  }
  return tensors;
}

Napi::Value encrypt(const Napi::CallbackInfo& info) {
  const Napi::Object options = optionsOf(info);
  const std::string plan = stringField(options, "plan");
  const uint32_t threads = countField(options, "threads", 0);
  EncryptOptions encrypt;
  encrypt.key = stringField(options, "key");
  encrypt.out = stringField(options, "out");
  encrypt.allowOutOfRange = options.Get("allowOutOfRange").ToBoolean();
  return startTask(info.Env(), options.Get("onProgress"),
                   [=, inputs = clearTensors(options.Get("inputs"))](const Progress& progress) -> Convert {
    const PlanFile file = openPlan(plan);
    CryptoContext context(file.plan(), threads);
    EncryptOptions own = encrypt;
    own.progress = progress;
    return [warnings = encryptRequest(context, file.plan(), inputs, own),
            insecure = file.insecure()](Napi::Env env) -> Napi::Value {
      const Napi::Object result = Napi::Object::New(env);
      result.Set("warnings", warningArray(env, warnings));
      result.Set("insecure", insecure);
      return result;
    };
  });
}

Napi::Value decrypt(const Napi::CallbackInfo& info) {
  const Napi::Object options = optionsOf(info);
  const std::string plan = stringField(options, "plan"), key = stringField(options, "key");
  const std::string in = stringField(options, "in");
  const uint32_t threads = countField(options, "threads", 0);
  const Napi::Value share = options.Get("shareQueries");
  const uint64_t queries = share.IsNumber() ? uint64_t(share.As<Napi::Number>().Int64Value()) : 0;
  return startTask(info.Env(), options.Get("onProgress"), [=](const Progress& progress) -> Convert {
    const PlanFile file = openPlan(plan);
    CryptoContext context(file.plan(), threads);
    return [decrypted = decryptResponse(context, file.plan(), {key, in, progress, queries}),
            insecure = file.insecure()](Napi::Env env) -> Napi::Value {
      const Napi::Object outputs = Napi::Object::New(env), noise = Napi::Object::New(env);
      for (const auto& [name, values] : decrypted.outputs) {
        auto array = Napi::Float64Array::New(env, values.size());
        std::memcpy(array.Data(), values.data(), values.size() * sizeof(double));
        outputs.Set(name, array);
      }
      for (const auto& [name, value] : decrypted.imaginary) noise.Set(name, value);
      const Napi::Object result = Napi::Object::New(env), sigmas = Napi::Object::New(env);
      for (const auto& [name, sigma] : decrypted.floodSigma) sigmas.Set(name, sigma);
      result.Set("floodSigma", sigmas);
      result.Set("outputs", outputs);
      result.Set("noise", noise);
      result.Set("warnings", warningArray(env, decrypted.warnings));
      result.Set("insecure", insecure);
      return result;
    };
  });
}

Napi::Object reportObject(Napi::Env env, const RunReport& report) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("outputSha256", report.outputSha256);
  result.Set("seconds", report.seconds);
  result.Set("loadSeconds", report.loadSeconds);
  result.Set("insecure", report.insecure);
  result.Set("root", report.root);
  result.Set("processPeakBytes", double(report.processPeakBytes));
  if (const auto& c = report.checkpoint) {
    const Napi::Object checkpoint = Napi::Object::New(env);
    checkpoint.Set("written", double(c->written));
    checkpoint.Set("bytes", double(c->bytes));
    checkpoint.Set("seconds", c->seconds);
    checkpoint.Set("resumedAt", c->resumedAt);
    result.Set("checkpoint", checkpoint);
  }
  const Napi::Array ranks = Napi::Array::New(env), timings = Napi::Array::New(env),
                    opcodes = Napi::Array::New(env);
  for (const RankReport& rank : report.ranks) {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("rank", rank.rank);
    object.Set("peakBytes", double(rank.peakBytes));
    object.Set("staticBytes", double(rank.staticBytes));
    object.Set("seconds", rank.seconds);
    object.Set("computeSeconds", rank.computeSeconds);
    object.Set("waitSeconds", rank.waitSeconds);
    const Napi::Array collectives = Napi::Array::New(env);
    for (const CollectiveReport& c : rank.collectives) {
      const Napi::Object one = Napi::Object::New(env);
      one.Set("id", c.id);
      one.Set("node", c.node);
      one.Set("kind", c.kind);
      one.Set("executions", double(c.executions));
      one.Set("predictedBytes", double(c.predictedBytes));
      one.Set("receivedBytes", double(c.receivedBytes));
      one.Set("waitSeconds", c.waitSeconds);
      collectives.Set(collectives.Length(), one);
    }
    object.Set("collectives", collectives);
    ranks.Set(ranks.Length(), object);
  }
  for (const NamedSeconds& node : report.nodes) {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("node", node.name);
    object.Set("seconds", node.seconds);
    timings.Set(timings.Length(), object);
  }
  for (const NamedSeconds& op : report.opcodes) {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("op", op.name);
    if (std::isnan(op.seconds)) object.Set("seconds", env.Null());
    else object.Set("seconds", op.seconds);
    object.Set("launches", double(op.launches));
    object.Set("rowBytes", double(op.rowBytes));
    opcodes.Set(opcodes.Length(), object);
  }
  result.Set("ranks", ranks);
  result.Set("timings", timings);
  result.Set("opcodes", opcodes);
  result.Set("warnings", warningArray(env, report.warnings));
  return result;
}

Napi::Value run(const Napi::CallbackInfo& info) {
  const Napi::Object options = optionsOf(info);
  RunJob job;
  job.plan = stringField(options, "plan");
  job.weights = stringField(options, "weights", "");
  job.keys = stringField(options, "keys");
  job.in = stringField(options, "in");
  job.out = stringField(options, "out");
  job.backend = stringField(options, "backend", job.backend);
  job.channel = stringField(options, "channel", job.channel);
  job.threads = countField(options, "threads", 0);
  job.checkpoint = stringField(options, "checkpoint", "");
  const Napi::Value interval = options.Get("checkpointSeconds");
  if (interval.IsNumber()) job.checkpointSeconds = interval.As<Napi::Number>().DoubleValue();
  job.resume = options.Get("resume").ToBoolean();
  return startTask(info.Env(), options.Get("onProgress"), [job](const Progress& progress) -> Convert {
    RunJob own = job;
    own.progress = progress;
    return [report = runJob(own)](Napi::Env env) -> Napi::Value { return reportObject(env, report); };
  }, options.Get("onWarning"));
}

}  // namespace

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file above the limit is an error of write
  exports.Set("doctor", Napi::Function::New(env, doctor, "doctor"));
  exports.Set("validatePlan", Napi::Function::New(env, validatePlan, "validatePlan"));
  exports.Set("keygen", Napi::Function::New(env, keygen, "keygen"));
  exports.Set("encrypt", Napi::Function::New(env, encrypt, "encrypt"));
  exports.Set("decrypt", Napi::Function::New(env, decrypt, "decrypt"));
  exports.Set("run", Napi::Function::New(env, run, "run"));
  return exports;
}

}  // namespace aegis::addon

// The macro takes an unqualified name.
static Napi::Object initializeAegis(Napi::Env env, Napi::Object exports) {
  return aegis::addon::initialize(env, exports);
}
NODE_API_MODULE(aegis, initializeAegis)
