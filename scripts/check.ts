/**
 * `npm run check`: what a commit must pass, in under a minute and without a VM: types, lint, seams, tidiness, unit
 * tests.
 */
import { conclude, families, runFamily, runStaticChecks } from './steps.ts';
import type { Tally } from './steps.ts';

const tally: Tally = { passed: 0, failed: 0, skipped: [] };
await runStaticChecks(tally);
for (const family of families.filter(({ name }) => name === 'unit')) await runFamily(family, tally, undefined);
process.exitCode = conclude(tally);
