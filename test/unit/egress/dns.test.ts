/** Goal: the clone's resolver answers allowed names, asks nobody, and says nothing else. Method: real messages. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import packet from 'dns-packet';
import type { DecodedPacket, RecordType } from 'dns-packet';
import { limits } from '../../../src/core/limits.ts';
import { answerQuery, looksLikeTunnel, Names } from '../../../src/egress/dns.ts';

const names = new Names();
const isAllowed = (name: string): boolean => name.endsWith('ok.test');

function ask(name: string, type: RecordType = 'A', from = names): DecodedPacket {
  const query = packet.encode({ type: 'query', id: 77, flags: packet.RECURSION_DESIRED, questions: [{ type, name }] });
  const { message } = answerQuery(query, from, isAllowed);
  return packet.decode(message ?? Buffer.alloc(12));
}

const rcode = (message: DecodedPacket): number => (message.flags ?? 0) & 15;
const data = (message: DecodedPacket): unknown =>
  message.answers?.map((answer) => ('data' in answer ? answer.data : undefined));

test('an allowed name has an address of its own for the run, in every spelling', () => {
  const first = ask('a.ok.test');
  assert.equal(first.id, 77);
  assert.equal(first.flag_ra, true);
  assert.deepEqual(data(first), ['198.18.0.1']);
  assert.deepEqual(data(ask('A.Ok.TEST')), ['198.18.0.1']);
  assert.equal(ask('A.Ok.TEST').questions?.[0]?.name, 'A.Ok.TEST');
  assert.deepEqual(data(ask('b.ok.test')), ['198.18.0.2']);
  assert.deepEqual([names.nameOf('198.18.0.2'), names.nameOf('198.18.0.3')], ['b.ok.test', undefined]);
});

test('B5: every other name does not exist; other types have nothing', () => {
  for (const name of ['no.test', 'ok.test.evil', '1.2.3.4', 'a_b.no', 'ok.test\0']) {
    assert.equal(rcode(ask(name)), 3, name);
  }
  for (const type of ['AAAA', 'TXT', 'MX', 'SRV', 'NULL', 'CNAME'] as const) {
    const message = ask('a.ok.test', type);
    assert.deepEqual([rcode(message), data(message)], [0, []], type);
  }
});

test('more names than one run may have', () => {
  const many = new Names();
  for (let i = 0; i < limits.egressNamesMax; i++) assert.notEqual(many.addressOf(`${i}.ok.test`), undefined);
  assert.equal(rcode(ask('one.more.ok.test', 'A', many)), 2);
  assert.deepEqual(data(ask('7.ok.test', 'A', many)), ['198.18.0.8']);
});

test('garbage, answers and odd questions', () => {
  const none = (bytes: Buffer): Buffer | undefined => answerQuery(bytes, names, isAllowed).message;
  assert.equal(none(Buffer.alloc(5)), undefined);
  assert.equal(none(packet.encode({ type: 'response', id: 1, questions: [] })), undefined);
  assert.equal(none(Buffer.from('0001010000010000000000003f', 'hex'))?.readUInt16BE(2) ?? 0, 0x8081);
  const questions = ['a.ok.test', 'b.ok.test'].map((name) => ({ type: 'A' as const, name }));
  const two = packet.encode({ type: 'query', id: 1, questions });
  assert.equal(none(two)?.readUInt16BE(2), 0x8081);
});

test('names that carry data are noticed, ordinary ones are not', () => {
  for (const name of ['www.example.com', 'my-service-name-in-europe-west1.internal', 'ec2-52-1-2-3.compute.test']) {
    assert.equal(looksLikeTunnel(name), false, name);
  }
  for (const name of [`${'a'.repeat(50)}.x.test`, 'n4bqxk3zt7mzw2hvcj5lr9pd8s.x.test', `${'ab.'.repeat(45)}test`]) {
    assert.equal(looksLikeTunnel(name), true, name);
  }
});

test('a name of bytes that are no ASCII does not exist, and its answer echoes none of them', () => {
  // 60 bytes that are no UTF-8 would come back as 180: longer than a label can be. Found by the fuzzer.
  const header = Buffer.from('0007010000010000000000003c', 'hex');
  const query = Buffer.concat([header, Buffer.alloc(60, 0xff), Buffer.from('0000010001', 'hex')]);
  const { message, asked } = answerQuery(query, names, isAllowed);
  assert.ok(message);
  assert.deepEqual([message.length, message.readUInt8(3) & 15, asked], [12, 3, undefined]);
});
