use super::*;

/// Bytes of hexadecimal digits.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = str::from_utf8(pair).expect("digits");
            u8::from_str_radix(pair, 16).expect("digits")
        })
        .collect()
}

fn decode(decoder: &mut Decoder, block: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| str::from_utf8(bytes).expect("text").to_owned();
    decoder
        .decode(&hex(block), |name, value| {
            fields.push((text(name), text(value)));
        })
        .expect("it is valid");
    fields
}

fn assert_fields(fields: &[(String, String)], expected: &[(&str, &str)]) {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(fields, expected);
}

/// The examples of RFC 7541 appendix C.4: Huffman's code, and a table that grows.
#[test]
fn requests_of_the_standard_are_understood() {
    let mut decoder = Decoder::default();
    let first = decode(&mut decoder, "828684418cf1e3c2e5f23a6ba0ab90f4ff");
    let common = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ];
    assert_fields(&first, &common);
    let second = decode(&mut decoder, "828684be5886a8eb10649cbf");
    assert_fields(
        &second,
        &[&common[..], &[("cache-control", "no-cache")]].concat(),
    );
    let third = decode(
        &mut decoder,
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    );
    assert_fields(
        &third,
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    );
    assert_eq!(decoder.size, 164);
}

/// The examples of RFC 7541 appendix C.6: a table of 256 bytes, which overflows.
#[test]
fn responses_of_the_standard_are_understood() {
    let mut decoder = Decoder {
        limit: 256,
        ..Decoder::default()
    };
    let first = decode(
        &mut decoder,
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    );
    assert_fields(
        &first,
        &[
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
    );
    assert_eq!(decoder.size, 222);
    let second = decode(&mut decoder, "4883 640e ffc1 c0bf");
    assert_fields(
        &second,
        &[
            (":status", "307"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ],
    );
    assert_eq!(decoder.size, 222);
    let third = decode(
        &mut decoder,
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    );
    assert_fields(
        &third,
        &[
            (":status", "200"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            ("location", "https://www.example.com"),
            ("content-encoding", "gzip"),
            (
                "set-cookie",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ],
    );
    assert_eq!(decoder.size, 215);
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::default();
    decoder
        .decode(&hex("4001610162"), |_, _| ())
        .expect("valid");
    assert_eq!((decoder.size, decoder.table.len()), (34, 1));
    decoder
        .decode(&hex("3e 4001610162"), |_, _| ())
        .expect("valid");
    assert_eq!((decoder.size, decoder.table.len()), (0, 0));
}
