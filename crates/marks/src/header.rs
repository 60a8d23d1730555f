//! The C header of fief's field: one text for fief's own programs, and one for those of others on this host.
//!
//! Every mark that fief writes anywhere comes from one [`MarkLayout`]; where C must know it, the text is made here.

use crate::{MarkLayout, Positions};

/// For fief's own bpf programs: the positions are constants that the loader sets before they are verified.
pub fn programs() -> String {
    let default = MarkLayout::default();
    format!(
        "/* Generated from crates/marks: where a tenant's slot stands in a mark. */
#ifndef FIEF_MARKS_H
#define FIEF_MARKS_H

const volatile __u32 fief_mask = {mask:#x};    /* the field that is read, and written */
const volatile __u32 fief_shift = {shift};
const volatile __u32 fief_also_mask = 0;    /* a field that is written as well, while the field moves */
const volatile __u32 fief_also_shift = 0;

static __always_inline __u32 slot_of(__u32 mark)
{{
\treturn (mark & fief_mask) >> fief_shift;
}}

static __always_inline __u32 with_slot(__u32 mark, __u32 slot)
{{
\tmark = (mark & ~fief_mask) | (slot << fief_shift & fief_mask);
\tif (fief_also_mask)
\t\tmark = (mark & ~fief_also_mask) | (slot << fief_also_shift & fief_also_mask);
\treturn mark;
}}

#endif
",
        mask = default.mask(),
        shift = default.shift()
    )
}

/// For programs of others on a host whose field stands here.
pub fn others(positions: Positions) -> String {
    let Positions { read, also } = positions;
    let moving = also.map_or_else(String::new, |also| {
        format!("/* The field is being moved: it is written to {also:#x} as well. */\n", also = also.mask())
    });
    format!(
        "/* fief's field in the packet mark of this host. Read it, and leave its bits alone. */
#ifndef FIEF_MARK_H
#define FIEF_MARK_H

{moving}#define FIEF_MARK_MASK {mask:#010x}U
#define FIEF_MARK_SHIFT {shift}
#define FIEF_MARK_WIDTH {width}

/* The tenant's slot in a mark; 0 is the host. */
#define FIEF_SLOT(mark) (((mark) & FIEF_MARK_MASK) >> FIEF_MARK_SHIFT)
/* A mark with its own bits replaced by these, and fief's kept. */
#define FIEF_KEEP(mark, bits) (((mark) & FIEF_MARK_MASK) | ((bits) & ~FIEF_MARK_MASK))

#endif
",
        mask = read.mask(),
        shift = read.shift(),
        width = read.width()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_where_the_field_is() {
        let positions = Positions { read: MarkLayout::new(0xff_0000).unwrap(), also: None };
        let text = others(positions);
        assert!(text.contains("#define FIEF_MARK_MASK 0x00ff0000U\n#define FIEF_MARK_SHIFT 16\n"), "{text}");
        assert!(!text.contains("moved"));
        let moving = Positions { also: Some(MarkLayout::new(0xf).unwrap()), ..positions };
        assert!(others(moving).contains("written to 0xf as well"));
        assert!(programs().contains("fief_mask = 0xffff;"));
    }
}
