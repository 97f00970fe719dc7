"""What every client of the API uses: REST with failover, reflector and informer, work queue, leader
election, event recorder. No control loop and nothing of the API server lives here: they meet over HTTP.
"""
