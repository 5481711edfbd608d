#!/usr/bin/python3
"""Checks every rule that readers of gzip profile.proto set; tells the first broken one.

usage: pprof_strict.py [--raw] [--json] FILE

Exit status 0: all rules hold; 1: one is broken; 2: wrong usage or unreadable file.
--raw: FILE is not compressed. --json: print the samples as JSON on standard output:
  {"sample_types": [["cpu", "nanoseconds"], ...], "default_sample_type", "period_type", "period",
   "time_nanos", "duration_nanos", "comments": [...], "totals": [...],
   "mappings": [{"file", "build_id", "start", "limit", "offset", "has_functions", ...}],
   "samples": [{"stack": [names, innermost first], "values": [...], "labels": {key: text or number,
                "tid": 4711, ...}, "frames": [{"name", "system_name", "file", "line", "address",
                "mapping", "is_inlined"}]}]}
"""
import json
import re
import sys
import zlib

SAMPLES_MAX, BYTES_MAX, DEPTH_MAX, TEXT_MAX = 16000, 4 << 20, 1000, 65535

# message -> field number -> (name, kind); kind: int, bool, text, packed or a message, '*' repeated
FIELDS = {
    'Profile': {1: ('sample_type', 'ValueType*'), 2: ('sample', 'Sample*'),
                3: ('mapping', 'Mapping*'), 4: ('location', 'Location*'),
                5: ('function', 'Function*'), 6: ('string_table', 'text*'),
                7: ('drop_frames', 'int'), 8: ('keep_frames', 'int'), 9: ('time_nanos', 'int'),
                10: ('duration_nanos', 'int'), 11: ('period_type', 'ValueType'),
                12: ('period', 'int'), 13: ('comment', 'packed'),
                14: ('default_sample_type', 'int')},
    'ValueType': {1: ('type', 'int'), 2: ('unit', 'int')},
    'Sample': {1: ('location_id', 'packed'), 2: ('value', 'packed'), 3: ('label', 'Label*')},
    'Label': {1: ('key', 'int'), 2: ('str', 'int'), 3: ('num', 'int'), 4: ('num_unit', 'int')},
    'Mapping': {1: ('id', 'int'), 2: ('memory_start', 'int'), 3: ('memory_limit', 'int'),
                4: ('file_offset', 'int'), 5: ('filename', 'int'), 6: ('build_id', 'int'),
                7: ('has_functions', 'bool'), 8: ('has_filenames', 'bool'),
                9: ('has_line_numbers', 'bool'), 10: ('has_inline_frames', 'bool')},
    'Location': {1: ('id', 'int'), 2: ('mapping_id', 'int'), 3: ('address', 'int'),
                 4: ('line', 'Line*'), 5: ('is_folded', 'bool')},
    'Line': {1: ('function_id', 'int'), 2: ('line', 'int'), 3: ('column', 'int')},
    'Function': {1: ('id', 'int'), 2: ('name', 'int'), 3: ('system_name', 'int'),
                 4: ('filename', 'int'), 5: ('start_line', 'int')},
}
KINDS = {message: [(name, kind) for name, kind in fields.values()]
         for message, fields in FIELDS.items()}
DEFAULTS = {message: {name: False if kind == 'bool' else None if kind[0].isupper() else 0
                      for name, kind in kinds} for message, kinds in KINDS.items()}
LISTS = {message: [name for name, kind in kinds if kind.endswith('*') or kind == 'packed']
         for message, kinds in KINDS.items()}
SIGNED = {'time_nanos', 'duration_nanos', 'period', 'value', 'num', 'line', 'start_line'}


class Broken(Exception):
    pass


def need(condition, rule):
    if not condition:
        raise Broken(rule)


def varint(data, at, end):
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    while True:
        need(at < end, 'a varint ends before its message does')
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            break
        shift += 7
        need(shift < 70, 'a varint is longer than 10 bytes')
    need(value < 1 << 64, 'a varint holds more than 64 bits')
    need(byte != 0 or shift == 0, 'a varint is not in its shortest form')
    return value, at


def signed(value, name):
    return value - (1 << 64) if name in SIGNED and value >> 63 else value


def decode(data, at, end, message):
    """The fields of one message as a dictionary; unset ones have their default."""
    out = dict(DEFAULTS[message])
    for name in LISTS[message]:
        out[name] = []
    seen = set()
    while at < end:
        tag, at = varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        need(number != 15, 'doc_url (field 15) is written: Perfetto then refuses the file')
        need(number in FIELDS[message], f'{message} has the unknown field {number}')
        name, kind = FIELDS[message][number]
        where = f'{message}.{name}'
        need(kind.endswith('*') or number not in seen, f'{where} stands twice')
        seen.add(number)
        if kind in ('int', 'bool'):
            need(wire == 0, f'{where} has wire type {wire}, not 0')
            value, at = varint(data, at, end)
            need(kind != 'bool' or value <= 1, f'{where} is {value}, not a boolean')
            out[name] = bool(value) if kind == 'bool' else signed(value, name)
            continue
        need(wire == 2, f'{where} has wire type {wire}, not 2' +
             (': repeated integers must be packed' if kind == 'packed' else ''))
        length, at = varint(data, at, end)
        need(length <= end - at, f'{where} is longer than what holds it')
        stop = at + length
        if kind == 'packed':
            while at < stop:
                value, at = varint(data, at, stop)
                out[name].append(signed(value, name))
        elif kind == 'text*':
            need(length <= TEXT_MAX, f'a text has {length} bytes, more than {TEXT_MAX}')
            try:
                out[name].append(data[at:stop].decode('utf-8'))
            except UnicodeDecodeError as error:
                raise Broken(f'a text is not UTF-8: {error}') from None
        elif kind.endswith('*'):
            out[name].append(decode(data, at, stop, kind[:-1]))
        else:
            out[name] = decode(data, at, stop, kind)
        at = stop
    return out


def decompress(data):
    need(data[:2] == b'\x1f\x8b', 'the file does not begin as gzip does')
    stream = zlib.decompressobj(31)
    try:
        plain = stream.decompress(data)
    except zlib.error as error:
        raise Broken(f'gzip: {error}') from None
    need(stream.eof, 'the gzip stream is cut off')
    need(not stream.unused_data, 'bytes follow the gzip stream')
    return plain


class Checker:
    def __init__(self, profile):
        self.profile = profile
        self.texts = profile['string_table']

    def text(self, number, what):
        need(0 <= number < len(self.texts), f'{what} is text {number} of {len(self.texts)}')
        return self.texts[number]

    def some_text(self, number, what):
        text = self.text(number, what)
        need(text != '', f'{what} is empty')
        return text

    def ids(self, name):
        for number, item in enumerate(self.profile[name], 1):
            need(item['id'] == number,
                 f'{name} {number} has id {item["id"]}: ids must be 1..n in file order')
        need(len(self.profile[name]) < 1 << 32, f'{name} ids reach 2^32')

    def check_tables(self):
        need(self.texts, 'there is no string table')
        need(self.texts[0] == '', 'string_table[0] is not ""')
        need(len(set(self.texts)) == len(self.texts), 'a text stands twice in the string table')
        need(self.profile['sample_type'], 'there is no sample_type')
        kinds = [self.some_text(t['type'], 'sample_type.type') for t in self.profile['sample_type']]
        for kind in self.profile['sample_type']:
            self.some_text(kind['unit'], 'sample_type.unit')
        need(len(set(kinds)) == len(kinds), 'a sample type stands twice')
        need(self.profile['period_type'] is not None, 'there is no period_type')
        self.some_text(self.profile['period_type']['type'], 'period_type.type')
        self.some_text(self.profile['period_type']['unit'], 'period_type.unit')
        need(self.profile['period'] > 0, 'period is not above 0')
        need(self.profile['time_nanos'] > 0, 'time_nanos is not set')
        need(self.profile['duration_nanos'] >= 0, 'duration_nanos is negative')
        default = self.some_text(self.profile['default_sample_type'], 'default_sample_type')
        need(default in kinds, f'default_sample_type {default} is none of the sample types')
        for name in ('drop_frames', 'keep_frames'):
            re.compile(self.text(self.profile[name], name))
        for comment in self.profile['comment']:
            self.some_text(comment, 'a comment')
        for name in ('mapping', 'location', 'function'):
            self.ids(name)

    def check_mappings(self):
        ranges = []
        for mapping in self.profile['mapping']:
            what = f'mapping {mapping["id"]}'
            self.some_text(mapping['filename'], f'{what}: filename')
            build_id = self.text(mapping['build_id'], f'{what}: build_id')
            need(re.fullmatch('([0-9a-f][0-9a-f])*', build_id), f'{what}: build_id {build_id!r}')
            need(mapping['memory_start'] < mapping['memory_limit'], f'{what} is empty')
            ranges.append((mapping['memory_start'], mapping['memory_limit']))
        ranges.sort()
        for before, after in zip(ranges, ranges[1:]):
            need(before[1] <= after[0], f'mappings overlap at {after[0]:#x}')

    def check_functions(self):
        seen = set()
        for function in self.profile['function']:
            what = f'function {function["id"]}'
            self.some_text(function['name'], f'{what}: name')
            self.some_text(function['system_name'], f'{what}: system_name')
            self.text(function['filename'], f'{what}: filename')
            need(function['start_line'] >= 0, f'{what}: start_line is negative')
            key = tuple(function[k] for k in ('name', 'system_name', 'filename', 'start_line'))
            need(key not in seen, f'{what} stands twice')
            seen.add(key)

    def check_locations(self):
        addresses = set()
        used = set()
        functions, mappings = self.profile['function'], self.profile['mapping']
        facts = {m['id']: dict(any=False, line=False, file=False, number=False, inline=False)
                 for m in mappings}
        for location in self.profile['location']:
            what = f'location {location["id"]}'
            address = location['address']
            need(address != 0, f'{what} has address 0')
            need(address not in addresses, f'{what}: address {address:#x} stands twice')
            addresses.add(address)
            need(location['mapping_id'] <= len(mappings), f'{what}: no such mapping')
            need(location['mapping_id'] or location['line'],
                 f'{what} has neither a mapping nor a line')
            for line in location['line']:
                need(1 <= line['function_id'] <= len(functions), f'{what}: a line has no function')
                need(line['line'] >= 0, f'{what}: a negative line')
                used.add(line['function_id'])
            if not location['mapping_id']:
                continue
            mapping = mappings[location['mapping_id'] - 1]
            need(mapping['memory_start'] <= address < mapping['memory_limit'],
                 f'{what}: {address:#x} lies outside its mapping')
            fact = facts[mapping['id']]
            fact['any'] = True
            fact['line'] |= bool(location['line'])
            fact['inline'] |= len(location['line']) > 1
            fact['number'] |= any(line['line'] for line in location['line'])
            fact['file'] |= any(functions[line['function_id'] - 1]['filename']
                                for line in location['line'])
        need(len(used) == len(functions), 'a function is in no location')
        for mapping in mappings:
            fact = facts[mapping['id']]
            what = f'mapping {mapping["id"]}'
            need(fact['any'] or mapping['id'] == 1, f'{what} has no location')
            for flag, truth in (('has_filenames', 'file'), ('has_line_numbers', 'number'),
                                ('has_inline_frames', 'inline')):
                need(mapping[flag] == fact[truth], f'{what}: {flag} is not true to its locations')
            need(fact['line'] or not fact['any'] or not mapping['has_functions'],
                 f'{what}: has_functions, but none has a name')

    def check_labels(self, labels, what):
        seen = set()
        for label in labels:
            key = self.some_text(label['key'], f'{what}: a label key')
            need(not key.startswith('pprof::'), f'{what}: label key {key} is reserved')
            is_text = label['str'] != 0
            need(not (is_text and (label['num'] or label['num_unit'])),
                 f'{what}: label {key} is both a text and a number')
            need(is_text or label['num'] or label['num_unit'], f'{what}: label {key} is empty')
            self.text(label['str'], f'{what}: label {key}')
            self.text(label['num_unit'], f'{what}: the unit of label {key}')
            need((key, is_text) not in seen, f'{what}: label {key} stands twice')
            seen.add((key, is_text))

    def check_samples(self):
        samples, locations = self.profile['sample'], self.profile['location']
        need(len(samples) <= SAMPLES_MAX, f'{len(samples)} samples, more than {SAMPLES_MAX}')
        used = set()
        for number, sample in enumerate(samples, 1):
            what = f'sample {number}'
            need(len(sample['value']) == len(self.profile['sample_type']),
                 f'{what}: {len(sample["value"])} values for '
                 f'{len(self.profile["sample_type"])} sample types')
            need(min(sample['value']) >= 0, f'{what} has a negative value')
            need(any(sample['value']), f'{what}: all values are 0')
            need(sample['location_id'], f'{what} has no location')
            need(len(sample['location_id']) <= DEPTH_MAX, f'{what} is deeper than {DEPTH_MAX}')
            for location in sample['location_id']:
                need(1 <= location <= len(locations), f'{what}: no location {location}')
                used.add(location)
            self.check_labels(sample['label'], what)
        need(len(used) == len(locations), 'a location is in no sample')

    def check(self):
        self.check_tables()
        self.check_mappings()
        self.check_functions()
        self.check_locations()
        self.check_samples()

    # -- what the samples say -------------------------------------------------------------------

    def frames(self, location):
        mapping = None
        if location['mapping_id']:
            mapping = self.texts[self.profile['mapping'][location['mapping_id'] - 1]['filename']]
        for number, line in enumerate(location['line'], 1):
            function = self.profile['function'][line['function_id'] - 1]
            yield {'name': self.texts[function['name']],
                   'system_name': self.texts[function['system_name']],
                   'file': self.texts[function['filename']], 'line': line['line'],
                   'address': location['address'], 'mapping': mapping,
                   'is_inlined': number < len(location['line'])}
        if not location['line']:
            yield {'name': f'{location["address"]:#x}', 'system_name': '', 'file': '', 'line': 0,
                   'address': location['address'], 'mapping': mapping, 'is_inlined': False}

    def dump(self):
        kinds = [[self.texts[t['type']], self.texts[t['unit']]]
                 for t in self.profile['sample_type']]
        period_type = self.profile['period_type']
        frames = {loc['id']: list(self.frames(loc)) for loc in self.profile['location']}
        samples = []
        for sample in self.profile['sample']:
            stack = [frame for number in sample['location_id'] for frame in frames[number]]
            samples.append({
                'stack': [frame['name'] for frame in stack], 'values': sample['value'],
                'labels': {self.texts[label['key']]:
                           self.texts[label['str']] if label['str'] else label['num']
                           for label in sample['label']},
                'frames': stack})
        return {
            'sample_types': kinds,
            'default_sample_type': self.texts[self.profile['default_sample_type']],
            'period_type': [self.texts[period_type['type']], self.texts[period_type['unit']]],
            'period': self.profile['period'], 'time_nanos': self.profile['time_nanos'],
            'duration_nanos': self.profile['duration_nanos'],
            'comments': [self.texts[comment] for comment in self.profile['comment']],
            'totals': [sum(column) for column in zip(*(s['values'] for s in samples))],
            'mappings': [{'file': self.texts[m['filename']], 'build_id': self.texts[m['build_id']],
                          'start': m['memory_start'], 'limit': m['memory_limit'],
                          'offset': m['file_offset'],
                          **{flag: m[flag] for flag in m if flag.startswith('has_')}}
                         for m in self.profile['mapping']],
            'samples': samples}


def main(arguments):
    options = [a for a in arguments if a.startswith('--')]
    files = [a for a in arguments if not a.startswith('--')]
    if len(files) != 1 or set(options) - {'--raw', '--json'}:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        with open(files[0], 'rb') as file:
            data = file.read()
    except OSError as error:
        print(f'{files[0]}: {error.strerror}', file=sys.stderr)
        return 2
    try:
        plain = data if '--raw' in options else decompress(data)
        need(len(plain) <= BYTES_MAX, f'{len(plain)} bytes uncompressed, more than {BYTES_MAX}')
        checker = Checker(decode(plain, 0, len(plain), 'Profile'))
        checker.check()
    except Broken as rule:
        print(f'{files[0]}: {rule}', file=sys.stderr)
        return 1
    if '--json' in options:
        print(json.dumps(checker.dump()))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
