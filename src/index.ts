/** Public API of aegis-fhe. */
export { calibrate, compile, compilerVersion, sampleInputs } from './compile.js';
export type { CompileOptions, CompileResult, CompileSummary, ShapeOptions } from './compile.js';
export type { Ranges } from './passes/ranges.js';
export { formatNpz, parseNpz, readSamples, type Tensor } from './data/index.js';
export { AegisError, renderDiagnostic, type Diagnostic } from './support/diagnostics.js';
export * as executor from './executor/index.js';
