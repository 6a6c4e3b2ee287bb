import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { onnxSupportPage } from '../../src/frontend/document.js';

const path = fileURLToPath(new URL('../../docs/onnx-support.md', import.meta.url));

// AEGIS_BLESS=1 npx vitest run test/frontend/docs.test.ts writes the page.
it('docs/onnx-support.md is what the code says (AEGIS_BLESS=1 writes it)', () => {
  const wanted = onnxSupportPage();
  if (process.env.AEGIS_BLESS === '1') writeFileSync(path, wanted);
  else expect(existsSync(path) ? readFileSync(path, 'utf8') : '').toBe(wanted);
});
