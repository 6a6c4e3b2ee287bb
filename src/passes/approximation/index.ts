/** Function library of the passes that replace nonlinear operators by polynomials. */
export {
  degreeOf,
  divideByChebyshev,
  evaluateChebyshev,
  evaluateOn,
  interpolate,
  type RealFunction,
} from './chebyshev.js';
export { compositeDegrees, compositeSign, type CompositeSign } from './composite.js';
export { fitChebyshev, type ChebyshevFit, type FitOptions } from './fit.js';
export { realFunction, type NonlinearFunction } from './functions.js';
