//! The addresses of one subnet.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::model::{Error, Result};

/// Which addresses of a subnet are taken.
#[derive(Clone, Debug)]
pub struct Leases {
    subnet: IpNet,
    range: IpNet,
    taken: BTreeSet<IpAddr>,
}

impl Leases {
    /// All free, but for the subnet's own and its broadcast address, which IPv4 has not in the smallest subnets.
    /// Unwanted addresses come from `range`.
    pub fn new(subnet: IpNet, range: IpNet) -> Self {
        let taken = match subnet {
            IpNet::V4(net) if net.prefix_len() >= 31 => BTreeSet::new(),
            IpNet::V4(_) => BTreeSet::from([subnet.network(), subnet.broadcast()]),
            IpNet::V6(_) => BTreeSet::from([subnet.network()]),
        };
        Self { subnet, range, taken }
    }

    /// Takes an address that is never given out.
    pub fn reserve(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// Takes the wanted address, or the first that is free.
    pub fn lease(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let address = match wanted {
            Some(address) if !self.subnet.contains(&address) => {
                return Err(Error::invalid(format!(
                    "no configured subnet or ip-range contain the IP address {address}"
                )));
            }
            Some(address) if self.taken.contains(&address) => {
                return Err(Error::forbidden("Address already in use"));
            }
            Some(address) => address,
            None => self.first_free().ok_or_else(|| Error::unavailable("no available addresses on this pool"))?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }

    /// Length of the subnet's prefix.
    pub fn prefix_len(&self) -> u8 {
        self.subnet.prefix_len()
    }

    fn first_free(&self) -> Option<IpAddr> {
        let (first, last) = (number(self.range.network()), number(self.range.broadcast()));
        // Of n + 1 candidates one is free if n are taken, however large the range is.
        let last = last.min(first.saturating_add(self.taken.len() as u128));
        (first..=last).map(|number| self.address(number)).find(|address| !self.taken.contains(address))
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => IpAddr::V4(u32::try_from(number).expect("a number of an IPv4 range").into()),
            IpNet::V6(_) => IpAddr::V6(number.into()),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(subnet: &str, range: &str) -> Leases {
        Leases::new(subnet.parse().unwrap(), range.parse().unwrap())
    }

    fn lease(leases: &mut Leases, wanted: &str) -> Result<String> {
        leases.lease(wanted.parse().ok()).map(|address| address.to_string())
    }

    #[test]
    fn addresses_are_given_out_in_order_and_again() {
        let mut leases = leases("10.0.0.0/29", "10.0.0.0/29");
        assert_eq!(lease(&mut leases, "").unwrap(), "10.0.0.1");
        assert_eq!(lease(&mut leases, "").unwrap(), "10.0.0.2");
        leases.release("10.0.0.1".parse().unwrap());
        assert_eq!(lease(&mut leases, "").unwrap(), "10.0.0.1");
    }

    #[test]
    fn a_full_pool_says_so() {
        let mut leases = leases("10.0.0.0/30", "10.0.0.0/30");
        assert!(lease(&mut leases, "").is_ok() && lease(&mut leases, "").is_ok());
        assert_eq!(lease(&mut leases, "").unwrap_err().message(), "no available addresses on this pool");
    }

    #[test]
    fn a_wanted_address_must_be_free_and_inside() {
        let mut leases = leases("10.0.0.0/24", "10.0.0.128/25");
        assert_eq!(lease(&mut leases, "").unwrap(), "10.0.0.128");
        assert_eq!(lease(&mut leases, "10.0.0.5").unwrap(), "10.0.0.5");
        assert_eq!(lease(&mut leases, "10.0.0.5").unwrap_err().message(), "Address already in use");
        assert!(lease(&mut leases, "10.0.1.5").is_err());
    }

    #[test]
    fn an_ipv6_subnet_starts_at_one() {
        assert_eq!(lease(&mut leases("fd00::/64", "fd00::/64"), "").unwrap(), "fd00::1");
    }
}
