/**
 * Writes docs/openapi.json, the description of the HTTP interface that a running service publishes at /openapi.json. It
 * is made of the routes themselves; test/unit/serve/server.test.ts compares the two and holds answers against it.
 *
 *   node scripts/openapi.ts
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createServer } from '../src/serve/server.ts';
import type { ServerOptions } from '../src/serve/server.ts';

// Nothing is called: only the routes are looked at.
const server = await createServer({ service: {}, version: '0.0.0' } as unknown as ServerOptions);
await server.ready();
const path = join(import.meta.dirname, '..', 'docs', 'openapi.json');
await writeFile(path, `${JSON.stringify(server.swagger(), null, 2)}\n`);
await server.close();
