/** Differences between outputs and what they should be, as `verify` and `demo` report them. */

export interface Agreement {
  readonly samples: number;
  /** Infinity if an output is not a number. */
  readonly maxAbsError: number;
  /** Index, in its file, of the sample with that error. */
  readonly worstSample: number;
  /** Share of rows whose largest entry is the reference's. */
  readonly argmaxAgreement: number;
  /** Share of samples whose largest entry is the label; absent without labels. */
  readonly accuracy?: number;
}

export interface Comparison {
  readonly measured: Float64Array;
  readonly reference: Float64Array;
  /** Entries of the last axis: one row is one decision. */
  readonly rowLength: number;
  readonly label?: number | undefined;
}

/** `firstSample` is the index in its file of the first one compared. */
export function agreementOf(comparisons: readonly Comparison[], firstSample: number): Agreement {
  const errors = comparisons.map(({ measured, reference }) => largestDifference(measured, reference));
  const maxAbsError = Math.max(...errors);
  let rows = 0;
  let agreeing = 0;
  let labelled = 0;
  let right = 0;
  for (const { measured, reference, rowLength, label } of comparisons) {
    for (let start = 0; start < reference.length; start += rowLength) {
      const found = argmax(measured.subarray(start, start + rowLength));
      rows++;
      if (found === argmax(reference.subarray(start, start + rowLength))) agreeing++;
      if (label === undefined || rowLength !== reference.length) continue;
      labelled++;
      if (found === label) right++;
    }
  }
  return {
    samples: comparisons.length,
    maxAbsError,
    worstSample: firstSample + errors.indexOf(maxAbsError),
    argmaxAgreement: agreeing / rows,
    ...(labelled === 0 ? {} : { accuracy: right / labelled }),
  };
}

export function largestDifference(a: Float64Array, b: Float64Array): number {
  // NaN must not vanish in a maximum.
  return a.reduce(
    (max, value, i) => {
      const difference = Math.abs(value - (b[i] ?? NaN));
      return Number.isNaN(difference) ? Infinity : Math.max(max, difference);
    },
    a.length === b.length ? 0 : Infinity,
  );
}

export function argmax(values: Float64Array): number {
  return values.reduce((best, value, i) => (value > (values[best] ?? -Infinity) ? i : best), 0);
}
