/**
 * Goal: rows of an event go into a PostgreSQL outside of its clone, through the egress broker, with programs that know
 * nothing of it; and nothing else can be reached that way. Method: the examples as they are, psycopg2 and psql, through
 * the command line against a real server; its own psql counts what arrived.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startPostgres } from './postgres.ts';
import type { Postgres } from './postgres.ts';
import { home, inFolder } from './rig.ts';
import { dnsServer } from './servers.ts';

const root = join(import.meta.dirname, '../..');
const orders = (name: string): string => join(root, 'examples', 'orders', name);
let postgres: Postgres;

before(async () => { postgres = await startPostgres(); });
after(() => postgres.stop());

interface Answer {
  readonly ok: boolean;
  readonly output?: { readonly inserted: readonly number[] };
  readonly error?: { readonly message: string; readonly detail?: string };
  readonly network: { readonly flows: readonly { readonly verdict: string; readonly name: string | null }[] };
}

async function run(dns: string, allowed: number, ...what: string[]): Promise<Answer> {
  return await inFolder(async (folder) => {
    const policy = join(folder, 'network.json');
    const rule = { allow: `db.test:${allowed}`, cidr: '127.0.0.1/32', private: true };
    await writeFile(policy, JSON.stringify({ rules: [rule] }));
    const url = `postgresql://shop@db.test:${postgres.port}/postgres`;
    const args = [
      'run', '--image', 'database', ...what, '--event', orders('event.json'), '--env', `DATABASE_URL=${url}`,
      '--network', policy, '--accel', 'tcg', '--timeout', '100s', '--json',
    ];
    const env = { ...process.env, MAYFLY_HOME: home, MAYFLY_RESOLVERS: dns };
    return await new Promise((resolve, reject) => {
      execFile(join(root, 'bin/mayfly'), args, { env, timeout: 200_000 }, (_error, out, err) => {
        if (out === '') reject(new Error(err));
        else resolve(JSON.parse(out) as Answer);
      });
    });
  });
}

const count = (): Promise<string> => postgres.query('SELECT count(*), sum(amount) FROM orders');

for (const [name, what] of [
  ['psycopg2', ['--handler', orders('handler.py')]], ['psql', ['--exec', orders('insert.sh')]],
] as const) {
  test(`rows of the event are inserted by ${name}, and the flow is on record`, async (t) => {
    const { server } = await dnsServer(t, { 'db.test': ['127.0.0.1'] });
    await postgres.query('TRUNCATE orders RESTART IDENTITY');
    const answer = await run(server, postgres.port, ...what);
    assert.deepEqual(answer.output, { inserted: [1, 2, 3] }, JSON.stringify(answer));
    assert.equal(await count(), '3|6');
    assert.deepEqual(answer.network.flows.map((flow) => [flow.name, flow.verdict]), [['db.test', 'allowed']]);
  });

  test(`${name} is told at once that a destination is denied, and no row is there`, async (t) => {
    const { server } = await dnsServer(t, { 'db.test': ['127.0.0.1'] });
    await postgres.query('TRUNCATE orders RESTART IDENTITY');
    // The name is allowed at another port, so that it is the connection that is refused.
    const { ok, error, network } = await run(server, postgres.port + 1, ...what);
    assert.equal(ok, false);
    assert.match(`${error?.message} ${error?.detail}`, /Connection refused/);
    assert.equal(await count(), '0|');
    assert.deepEqual(network.flows.map(({ verdict }) => verdict), ['denied']);
  });
}
