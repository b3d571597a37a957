//! A small database of countries in MaxMind's format, version 2.0: a tree of address bits, records of 24
//! bits, and the data that its leaves point at.

use std::net::Ipv4Addr;

/// A node's two ways: to another node, to data, or nowhere.
#[derive(Clone, Copy)]
enum Way {
    Nowhere,
    Node(usize),
    Data(usize),
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 29);
    out.push(0x40 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, kind: u8, value: u32) {
    let bytes = value.to_be_bytes();
    // Kinds above 7 are told in a byte of their own.
    if kind > 7 {
        out.extend([bytes.len() as u8, kind - 7]);
    } else {
        out.push(kind << 5 | bytes.len() as u8);
    }
    out.extend(bytes);
}

/// Networks, each with its country, as `ip-location-db` writes them.
pub fn of_countries(networks: &[(Ipv4Addr, u32, &str)]) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Way::Nowhere; 2]], Vec::new());
    for (address, prefix, country) in networks {
        let at = data.len();
        data.push(0xe0 | 1);
        text(&mut data, "country_code");
        text(&mut data, country);
        let mut node = 0;
        for depth in 0..*prefix {
            let bit = (address.to_bits() >> (31 - depth) & 1) as usize;
            if depth + 1 == *prefix {
                nodes[node][bit] = Way::Data(at);
            } else if let Way::Node(next) = nodes[node][bit] {
                node = next;
            } else {
                nodes.push([Way::Nowhere; 2]);
                nodes[node][bit] = Way::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
    }
    let mut file = Vec::new();
    for way in nodes.iter().flatten() {
        let record = match way {
            Way::Nowhere => nodes.len(),
            Way::Node(node) => *node,
            Way::Data(at) => nodes.len() + 16 + at,
        };
        file.extend(&(record as u32).to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.push(0xe0 | 9);
    for (name, kind, value) in [
        ("node_count", 6, nodes.len() as u32),
        ("record_size", 5, 24),
        ("ip_version", 5, 4),
        ("binary_format_major_version", 5, 2),
        ("binary_format_minor_version", 5, 0),
        ("build_epoch", 9, 1),
    ] {
        text(&mut file, name);
        if kind == 5 {
            file.push(5 << 5 | 2);
            file.extend((value as u16).to_be_bytes());
        } else {
            number(&mut file, kind, value);
        }
    }
    text(&mut file, "database_type");
    text(&mut file, "test");
    text(&mut file, "languages");
    file.extend([0x00, 11 - 7]);
    text(&mut file, "description");
    file.push(0xe0);
    file
}
