import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { withOpTable } from '../../src/ir/document.js';

const path = fileURLToPath(new URL('../../docs/ir.md', import.meta.url));

// AEGIS_BLESS=1 npx vitest run test/ir/docs.test.ts writes the page.
it('docs/ir.md has the op table of the code (AEGIS_BLESS=1 writes it)', () => {
  const page = readFileSync(path, 'utf8');
  const wanted = withOpTable(page);
  if (process.env.AEGIS_BLESS === '1') writeFileSync(path, wanted);
  else expect(page).toBe(wanted);
});
