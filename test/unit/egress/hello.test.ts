/**
 * Goal: a ClientHello is read exactly or not at all, however records and segments cut it, and nothing that a server may
 * take for TLS or HTTP passes as something else. Method: hellos of OpenSSL as Node, curl and s_client make them, each
 * cut and damaged at every place; the published example of JA4.
 */
import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { ja4Of, readClientHello } from '../../../src/egress/client-hello.ts';
import type { ClientHello } from '../../../src/egress/client-hello.ts';
import { FirstLine, sniff } from '../../../src/egress/sniff.ts';
import { clientHello, recordsOf } from './hello.ts';

async function helloOfNode(options: object): Promise<Buffer> {
  return await new Promise((resolve) => {
    const socket = new Duplex({ read() {}, write(chunk: Buffer) { resolve(chunk); } });
    connect({ ...options, socket }).on('error', () => {});
  });
}

function hello(bytes: Buffer): ClientHello {
  const reading = readClientHello(bytes);
  assert.equal(reading.kind, 'hello', JSON.stringify(reading));
  return (reading as { hello: ClientHello }).hello;
}

test('a ClientHello of Node: name, protocols, fingerprint', async () => {
  const bytes = await helloOfNode({ servername: 'api.test', ALPNProtocols: ['h2', 'http/1.1'] });
  const { serverName, alpn, hasEch, ja4 } = hello(bytes);
  assert.deepEqual([serverName, alpn, hasEch], ['api.test', ['h2', 'http/1.1'], false]);
  assert.match(ja4, /^t13d\d{4}h2_[0-9a-f]{12}_[0-9a-f]{12}$/);
  const other = hello(await helloOfNode({ servername: 'other.test', ALPNProtocols: ['h2', 'http/1.1'] }));
  assert.equal(other.ja4, ja4);
  assert.match(hello(await helloOfNode({ maxVersion: 'TLSv1.2' })).ja4, /^t12i\d{4}00_/);
});

test('the published example of JA4', () => {
  const ja4 = ja4Of({
    versions: [0x1a1a, 0x0304, 0x0303], hasName: true, alpn: ['h2', 'http/1.1'],
    ciphers: [
      0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
      0x002f, 0x0035,
    ],
    extensions: [
      0x8a8a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
      0x000b, 0x000a, 0x0015,
    ],
    signatures: [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
  });
  assert.equal(ja4, 't13d1516h2_8daaf6152771_e5627efa2ab1');
});

test('cut anywhere it is incomplete; cut into records of any size it is the same', () => {
  const message = clientHello({ name: 'a.test', alpn: ['h2'] });
  const whole = recordsOf(message, 16_384);
  for (let length = 0; length < whole.length; length++) {
    assert.equal(readClientHello(whole.subarray(0, length)).kind, 'incomplete', `${length}`);
  }
  for (const size of [1, 2, 5, 40, message.length - 1]) {
    const cut = recordsOf(message, size);
    const reading = readClientHello(Buffer.concat([cut, Buffer.from('more')]));
    assert.deepEqual(reading, { kind: 'hello', hello: hello(whole), length: cut.length });
  }
});

test('what is not exactly a ClientHello is malformed', () => {
  const bad = (bytes: Buffer): string => {
    const reading = readClientHello(bytes);
    return reading.kind === 'malformed' ? reading.because : reading.kind;
  };
  const whole = (...args: Parameters<typeof clientHello>): Buffer => recordsOf(clientHello(...args), 16_384);
  assert.match(bad(whole({ names: ['a.test', 'b.test'] })), /more than one server name/);
  assert.match(bad(whole({ name: '' })), /empty server name/);
  assert.match(bad(whole({ name: 'a.test', extra: [[0, Buffer.alloc(4)]] })), /extension 0 twice/);
  assert.match(bad(whole({ name: 'a.test', after: Buffer.alloc(1) })), /after the extensions/);
  const good = whole({ name: 'a.test' });
  assert.match(bad(Buffer.concat([good.subarray(0, 1), Buffer.from([2]), good.subarray(2)])), /version/);
  assert.match(bad(Buffer.from('1603010000', 'hex')), /record of 0/);
  assert.match(bad(Buffer.from('160301ffff', 'hex')), /record of 65535/);
  assert.match(bad(Buffer.from('1603010004' + '02000000', 'hex')), /no ClientHello/);
  assert.match(bad(Buffer.from('160301000401ffffff', 'hex')), /too long/);
  assert.match(bad(Buffer.concat([recordsOf(good.subarray(5, 20), 3), Buffer.from([23])])), /no ClientHello/);
  assert.match(bad(recordsOf(Buffer.concat([Buffer.from([1, 0, 0x70, 0]), Buffer.alloc(0x7000)]), 1)), /too long/);
});

test('what a server may take for TLS or HTTP is found', () => {
  const table: Readonly<Record<string, string>> = {
    '': 'wait', 'GET / HTTP/1.1\r\n': 'http1', '\r\n\r\nGET / HTTP/1.1\r\n': 'http1', 'get / http/1.1\n': 'http1',
    ' GET / HTTP/1.0\r\n': 'http1', 'GET http://x/ HTTP/1.1': 'http1', 'G': 'wait', 'GET': 'wait', 'GET /a': 'wait',
    'GET /a\r\n': 'tcp', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n': 'http2', 'PRI * HTTP/2.0\r\n\r\nS': 'wait',
    'PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n': 'http1', 'EHLO x\r\n': 'tcp', 'SSH-2.0-x\r\n': 'tcp', 'hello': 'tcp',
    '\x16\x03\x01': 'tls', '\x16': 'wait', '\x16\x04': 'tcp', '\x80\x2e\x01\x03': 'tls', '\x80\x2e\x01': 'wait',
    '\x80\x2e\x01\x09': 'tcp', '\0\0\0\x08': 'tcp', 'GET /\x01': 'tcp',
  };
  for (const [text, wanted] of Object.entries(table)) {
    assert.equal(sniff(Buffer.from(text, 'latin1')), wanted, JSON.stringify(text));
  }
  assert.equal(sniff(Buffer.from(`GET /${'x'.repeat(40_000)}`)), 'tcp');
  assert.equal(sniff(Buffer.from('\r\n'.repeat(200))), 'tcp');
});

test('a first line that becomes HTTP later is noticed, wherever it is cut', () => {
  const request = Buffer.from('\r\n get /x HTTP/1.1');
  for (let cut = 0; cut < request.length; cut++) {
    const line = new FirstLine();
    const parts = [request.subarray(0, cut), request.subarray(cut)];
    assert.ok(!parts.every((part) => line.allows(part)), `${cut}`);
  }
  const line = new FirstLine();
  assert.ok([...request].some((byte) => !line.allows(Buffer.from([byte]))));
  const other = new FirstLine();
  assert.ok(['EHLO x\r\n', 'GET / HTTP/1.1\r\n'].every((text) => other.allows(Buffer.from(text))));
});
