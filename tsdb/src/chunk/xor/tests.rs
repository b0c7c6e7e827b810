//! The fast codec against a slow one that goes bit by bit, as the format's description does.

use proptest::prelude::*;

use super::*;

/// A stream of bits, one entry each.
#[derive(Default)]
struct SlowBits {
    bits: Vec<bool>,
    at: usize,
}

impl SlowBits {
    fn put(&mut self, v: u64, n: u32) {
        (0..n).rev().for_each(|i| self.bits.push(v >> i & 1 == 1));
    }

    fn put_bytes(&mut self, b: &[u8]) {
        b.iter().for_each(|b| self.put(u64::from(*b), 8));
    }

    fn get(&mut self, n: u32) -> u64 {
        (0..n).fold(0, |v, _| {
            self.at += 1;
            v << 1 | u64::from(self.bits[self.at - 1])
        })
    }

    fn get_uvarint(&mut self) -> u64 {
        let mut v = 0;
        for shift in (0..).step_by(7) {
            let b = self.get(8);
            v |= (b & 0x7f) << shift;
            if b < 0x80 {
                break;
            }
        }
        v
    }

    fn into_bytes(mut self) -> Vec<u8> {
        while !self.bits.len().is_multiple_of(8) {
            self.bits.push(false);
        }
        self.bits.chunks(8).map(|c| c.iter().fold(0, |b, bit| b << 1 | u8::from(*bit))).collect()
    }
}

fn slow_encode(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut s = SlowBits::default();
    s.put(samples.len() as u64, 16);
    let (mut prev_t, mut prev_delta, mut prev_v) = (0_i64, 0_i64, 0_u64);
    let mut window: Option<(u32, u32)> = None;
    for (i, (t, v)) in samples.iter().enumerate() {
        let (delta, v) = (t.wrapping_sub(prev_t), v.to_bits());
        let mut varint = Vec::new();
        match i {
            0 => {
                varint::put_varint(&mut varint, *t);
                s.put_bytes(&varint);
                s.put(v, 64);
            }
            1 => {
                varint::put_uvarint(&mut varint, delta as u64);
                s.put_bytes(&varint);
            }
            _ => match delta.wrapping_sub(prev_delta) {
                0 => s.put(0, 1),
                d @ -8191..=8192 => (s.put(0b10, 2), s.put(d as u64, 14)).0,
                d @ -65535..=65536 => (s.put(0b110, 3), s.put(d as u64, 17)).0,
                d @ -524_287..=524_288 => (s.put(0b1110, 4), s.put(d as u64, 20)).0,
                d => (s.put(0b1111, 4), s.put(d as u64, 64)).0,
            },
        }
        if i > 0 {
            slow_put_xor(&mut s, v ^ prev_v, &mut window);
        }
        (prev_t, prev_delta, prev_v) = (*t, delta, v);
    }
    s.into_bytes()
}

fn slow_put_xor(s: &mut SlowBits, xor: u64, window: &mut Option<(u32, u32)>) {
    if xor == 0 {
        s.put(0, 1);
        return;
    }
    let (l, t) = (xor.leading_zeros().min(31), xor.trailing_zeros());
    match *window {
        Some((wl, wt)) if l >= wl && t >= wt => {
            s.put(0b10, 2);
            s.put(xor >> wt, 64 - wl - wt);
        }
        _ => {
            *window = Some((l, t));
            s.put(0b11, 2);
            s.put(u64::from(l), 5);
            s.put(u64::from(64 - l - t), 6);
            s.put(xor >> t, 64 - l - t);
        }
    }
}

fn slow_decode(bytes: &[u8]) -> Vec<(i64, u64)> {
    let mut s = SlowBits::default();
    s.put_bytes(bytes);
    let n = s.get(16);
    let (mut t, mut v, mut delta) = (0_i64, 0_u64, 0_i64);
    let (mut l, mut len) = (0, 64);
    let mut out = Vec::new();
    for i in 0..n {
        match i {
            0 => {
                let u = s.get_uvarint();
                t = (u >> 1) as i64 ^ -((u & 1) as i64);
                v = s.get(64);
                out.push((t, v));
                continue;
            }
            1 => delta = s.get_uvarint() as i64,
            _ => {
                let size = (0..4).take_while(|_| s.get(1) == 1).count();
                let mut signed = |n: u32| {
                    let raw = s.get(n) as i64;
                    if raw > 1 << (n - 1) { raw - (1 << n) } else { raw }
                };
                let dod = match size {
                    0 => 0,
                    1 => signed(14),
                    2 => signed(17),
                    3 => signed(20),
                    _ => s.get(64) as i64,
                };
                delta = delta.wrapping_add(dod);
            }
        }
        t = t.wrapping_add(delta);
        if s.get(1) == 1 {
            if s.get(1) == 1 {
                l = s.get(5) as u32;
                len = s.get(6) as u32;
                if len == 0 {
                    len = 64;
                }
            }
            v ^= s.get(len) << (64 - l - len);
        }
        out.push((t, v));
    }
    out
}

fn check(samples: &[(i64, f64)]) {
    let mut a = XorAppender::new();
    samples.iter().for_each(|(t, v)| a.append(*t, *v));
    let bytes = a.encode();
    assert_eq!(bytes, slow_encode(samples), "encoded bytes");
    let expect: Vec<(i64, u64)> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    assert_eq!(slow_decode(&bytes), expect, "slow decoding");
    let mut out = Samples::new();
    XOR_CODEC.decode(&bytes, i64::MIN, i64::MAX, &mut out).expect("own bytes");
    let got: Vec<(i64, u64)> =
        out.timestamps_ms.iter().zip(&out.values).map(|(t, v)| (*t, v.to_bits())).collect();
    assert_eq!(got, expect, "fast decoding");
    for k in 0..=a.count().min(6) {
        let mut prefix = Samples::new();
        XOR_CODEC.decode(&a.encode_first(k), i64::MIN, i64::MAX, &mut prefix).expect("own bytes");
        assert_eq!(prefix.timestamps_ms, out.timestamps_ms[..usize::from(k)]);
    }
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0_u32..2000).prop_map(f64::from),
        Just(model::stale_nan()),
        Just(-0.0),
        Just(1.5),
        Just(1.5),
    ]
}

fn any_step() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => Just(15_000_i64),
        1 => 14_990_i64..15_010,
        1 => 0_i64..200_000,
        1 => any::<i64>(),
        1 => prop::sample::select(vec![6808_i64, 6809, 23191, 23192, 23193, 80536, 80537, -50536, 539_287, 539_288, 539_289]),
    ]
}

proptest! {
    #[test]
    fn fast_equals_slow(start in any::<i64>(), steps in prop::collection::vec((any_step(), any_value()), 0..300)) {
        let mut t = start;
        let samples: Vec<_> = steps.into_iter().map(|(d, v)| { t = t.wrapping_add(d); (t, v) }).collect();
        check(&samples);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = XOR_CODEC.decode(&bytes, 0, 0, &mut Samples::new());
    }

    #[test]
    fn a_cut_chunk_is_an_error(n in 3_u32..200, cut in 1_usize..8) {
        let mut a = XorAppender::new();
        (0..n).for_each(|i| a.append(i64::from(i) * 1000, f64::from(i) * 0.1));
        let bytes = a.encode();
        let cut = cut.min(bytes.len() - 2);
        prop_assert!(XOR_CODEC.decode(&bytes[..bytes.len() - cut], 0, 0, &mut Samples::new()).is_err());
    }
}

#[test]
fn plain_shapes() {
    check(&[]);
    check(&[(1_600_000_000_000, 1.0)]);
    check(&[(0, f64::NAN), (1, model::stale_nan())]);
    let shape =
        |f: fn(i64) -> f64| (0..960).map(|i| (1_600_000_000_000 + i * 15_000, f(i))).collect::<Vec<_>>();
    check(&shape(|_| 42.0));
    check(&shape(|i| (i * 37) as f64));
    check(&shape(|i| (i as f64 * 0.1).sin()));
}
