/**
 * The readers of the egress broker: host names, ranges, policies, DNS messages, ClientHellos, first bytes and paths.
 * None may throw anything but a MayflyError; what is canonical stays as it is when read again; a resolver gives no
 * address for a name that is denied; a ClientHello that was read once is read the same from records of any size.
 */
import assert from 'node:assert/strict';
import packet from 'dns-packet';
import { MayflyError } from '../../../src/core/errors.ts';
import { readClientHello } from '../../../src/egress/client-hello.ts';
import { answerQuery, looksLikeTunnel, Names } from '../../../src/egress/dns.ts';
import { contains, parseCidr, parseHost, specialRange } from '../../../src/egress/host.ts';
import { parseNetworkFile } from '../../../src/egress/parse.ts';
import { decide, plainPath } from '../../../src/egress/policy.ts';
import { FirstLine, sniff } from '../../../src/egress/sniff.ts';
import { clientHello, recordsOf } from '../../unit/egress/hello.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

function query(name: string, type: 'A' | 'TXT' = 'A'): Buffer {
  return packet.encode({ type: 'query', id: 7, questions: [{ type, name }] });
}

const seeds = [
  ...[
    'API.Example.COM.', 'bücher.example', '0x7f.1', '2130706433', '::ffff:127.0.0.1', '[::1]', 'fe80::1%eth0',
    '10.0.0.0/8',
  ].map((text) => Buffer.from(`h${text}`)),
  ...[
    '{"rules":[{"allow":"*.a.test:443"},{"deny":"10.0.0.0/8","ports":[80,"90-99"]}]}',
    '{"mode":"audit","limits":{"bytes":9}}',
    '{"rules":[{"allow":"a.test","methods":["GET"],"paths":["/a/*"]}],"tls":{"ech":"allow","noName":"deny"}}',
  ].map((text) => Buffer.from(`p${text}`)),
  ...[query('ok.test'), query('x'.repeat(60), 'TXT'), query('no.example')]
    .map((bytes) => Buffer.concat([Buffer.from('d'), bytes])),
  ...[
    recordsOf(clientHello({ name: 'a.test', alpn: ['h2'], extra: [[13, Buffer.from('00020403', 'hex')]] }), 999),
    recordsOf(clientHello({ name: 'a.test' }), 7),
  ].map((bytes) => Buffer.concat([Buffer.from('t'), bytes])),
  ...['GET /a%2fb?c HTTP/1.1\r\n', '\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '/a/./b%41;x']
    .map((text) => Buffer.from(`s${text}`)),
];

function checkHost(text: string): void {
  const host = parseHost(text);
  if (host?.kind === 'name') {
    assert.deepEqual(parseHost(host.name), host);
    looksLikeTunnel(host.name);
  }
  if (host?.kind === 'address') {
    assert.deepEqual(parseHost(host.address), host);
    specialRange(host.address);
  }
  const cidr = parseCidr(text);
  if (cidr === undefined) return;
  assert.equal(parseCidr(cidr), cidr);
  assert.ok(contains(cidr, cidr.split('/')[0] ?? ''));
}

function checkPolicy(text: string): void {
  try {
    const policy = parseNetworkFile(text);
    const metadata = { name: undefined, address: '169.254.169.254', port: 80 };
    if (!policy.rules.some((rule) => rule.private === true)) assert.equal(decide(policy, metadata).allowed, false);
  } catch (thrown) {
    if (!(thrown instanceof MayflyError)) throw thrown;
  }
}

function checkDns(message: Buffer): void {
  const names = new Names();
  const { message: reply, asked } = answerQuery(message, names, (name) => name === 'ok.test');
  if (reply === undefined) return;
  assert.ok(reply.length >= 12 && reply.readUInt16BE(0) === message.readUInt16BE(0));
  const answers = reply.length > 12 ? (packet.decode(reply).answers ?? []) : [];
  assert.ok(answers.length === 0 || asked?.name === 'ok.test');
}

function checkHello(bytes: Buffer): void {
  const reading = readClientHello(bytes);
  if (reading.kind !== 'hello') return;
  const records = bytes.subarray(0, reading.length);
  assert.equal(readClientHello(records.subarray(0, -1)).kind, 'incomplete');
  const parts: Buffer[] = [];
  for (let at = 0; at < records.length; at += 5 + records.readUInt16BE(at + 3)) {
    parts.push(records.subarray(at + 5, at + 5 + records.readUInt16BE(at + 3)));
  }
  const again = readClientHello(recordsOf(Buffer.concat(parts), 3000));
  assert.deepEqual(again.kind === 'hello' ? again.hello : again, reading.hello);
}

function checkFirstBytes(bytes: Buffer): void {
  const found = sniff(bytes);
  if (found === 'tcp' && /^[ -~]*HTTP\/1/.test(bytes.subarray(0, 30_000).toString('latin1'))) {
    assert.ok(!new FirstLine().allows(bytes), 'HTTP passed for something else');
  }
  const path = plainPath(bytes.toString('latin1'));
  if (path !== undefined) assert.equal(plainPath(path), path);
}

export const egress: FuzzTarget = {
  smokeIterations: 20_000,
  make(random) {
    const seed = random.pick(seeds);
    return random.chance(95) ? Buffer.concat([seed.subarray(0, 1), mutate(random, seed.subarray(1), 4)]) : seed;
  },
  check(input) {
    const [kind] = input.subarray(0, 1).toString('latin1');
    const rest = input.subarray(1);
    if (kind === 'h') checkHost(rest.toString('utf8'));
    else if (kind === 'p') checkPolicy(rest.toString('utf8'));
    else if (kind === 't') checkHello(rest);
    else if (kind === 's') checkFirstBytes(rest);
    else checkDns(rest);
  },
};
